"""What is authored in and read from USD scenes."""
