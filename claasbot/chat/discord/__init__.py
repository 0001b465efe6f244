"""Discord, through discord.py: its events become chat events, replies become messages."""
