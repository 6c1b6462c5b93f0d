"""Training of the shipped tiny model (graphs/pretrained/tiny): data, codec, Talker, Thinker.

Not part of the wheel; docs/tiny-model.md shows the commands.
"""
