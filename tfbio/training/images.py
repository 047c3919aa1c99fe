"""Images that a run leaves in its folder."""


def write(path, picture):
    """Write a picture to a file.

    Args:
        path: The file; its ending says of which kind, such as .png.
        picture: A uint8 array (height, width, 3).

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> import numpy as np, tempfile
        >>> write(tempfile.mkdtemp() + "/a.png", np.zeros((8, 8, 3), "uint8"))
    """
    from PIL import Image

    Image.fromarray(picture).save(path)
