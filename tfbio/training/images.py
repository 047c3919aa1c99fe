"""Images that a run leaves in its folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def write(path: str | os.PathLike[str], picture: np.ndarray) -> None:
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
