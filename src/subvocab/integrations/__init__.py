"""One file for each library that people train with."""
