"""What others offer for the same wish, measured beside this library: one adapter a peer."""
