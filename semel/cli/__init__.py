"""The command line: `commands` parse arguments and print, `work` does what they ask for."""
