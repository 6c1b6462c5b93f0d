"""The version of this package; bundles name the one that made them."""

VERSION = "0.1.0"
