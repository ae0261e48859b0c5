"""What a vocabulary's use tells: growth laws, unused tokens, what PEMA saves, figures and a report."""
