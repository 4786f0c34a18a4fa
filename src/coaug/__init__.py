"""coaug: audio-visual self-supervised pre-training where picture and sound share one clock."""

__version__ = "0.1.0"
