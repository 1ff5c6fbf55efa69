"""A GGUF file in Hugging Face's terms: config, tokenizer and floating-point weights."""
