"""Files in other people's formats: read without running their code, written whole or not at all."""
