"""AriaStep: one step of the ARIA schedule of a Talker with a single stream of text and speech."""
