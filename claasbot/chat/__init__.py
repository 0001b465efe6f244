"""Platforms and people in the room: updates become ChatEvents, Replies become messages. Decides nothing."""
