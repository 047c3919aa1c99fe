"""Tests, mirroring tfbio/, and conformance tests over every rule and configuration."""
