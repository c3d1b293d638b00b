"""What a process minds about itself: its lock, its memory, its threads, and whether anybody still waits for it."""
