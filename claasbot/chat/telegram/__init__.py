"""Telegram, through python-telegram-bot's Bot. Translates; the services decide."""
