"""What Saccade's window in Isaac Sim shows and does, without Isaac Sim: a view model over a real run."""
