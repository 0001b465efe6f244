"""The trainer: the one package of claasbot that may import torch, transformers and peft.

It knows job folders and version folders and never opens the database. Nothing heavy is imported here, so that a
command line can be parsed, and refused, before torch is loaded.
"""
