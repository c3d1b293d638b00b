"""What a process minds about itself: lock, memory, threads, which of several it is, whether anybody waits for it."""
