"""What runs inside the server process. Imports vLLM and its torch; nothing else of claasbot imports this."""
