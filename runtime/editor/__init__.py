"""What editors are told of a `.nn` file: the language server, and what highlights the text."""
