"""What claasbot decides, as functions of values. Refuses clocks, paths, sockets and `await`."""
