"""The commands of `maskwheel`; each module offers one click command named `command`."""
