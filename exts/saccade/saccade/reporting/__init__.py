"""Report, JUnit and plots, made from the record alone."""
