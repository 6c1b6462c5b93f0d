"""The version of this package. A bundle names the version that made it."""

VERSION = "0.1.0"
