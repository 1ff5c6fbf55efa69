"""The model store: references, downloads, digests, GGUF metadata, conversion, pre-flight."""
