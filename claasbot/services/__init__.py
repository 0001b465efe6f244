"""The cycle: answering, listening, learning, promoting, telling. Async, short, and without a platform's name."""
