"""The dashboard, the playground and the API, in the bot's own event loop."""
