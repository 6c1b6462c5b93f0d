"""One row for a Talker's single stream of text and speech, or a hold: ARIA's schedule on a device."""
