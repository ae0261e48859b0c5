"""Full fine-tuning: what all others are put beside."""

from benchmarks.peers.peer import Peer

__all__ = ["Peer"]
