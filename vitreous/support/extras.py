"""How to install what is optional."""


def install_command(extra: str) -> str:
    """Installs the libraries of an extra. The package is on no index, so this is typed in a clone of its repository."""
    return f"pip install '.[{extra}]' in a clone of vitreous"
