"""What the use of a vocabulary tells: growth, unused tokens, what PEMA saves; a report."""
