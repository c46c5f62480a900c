"""The ground floor: command line, configuration, stages, files, launch. Knows nothing about images."""
