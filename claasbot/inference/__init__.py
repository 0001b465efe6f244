"""The inference server: vLLM that we start or attach to, and a scripted one that needs no hardware."""
