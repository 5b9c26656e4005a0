"""Tests; `make test` runs the fast ones, `make test-all` all."""
