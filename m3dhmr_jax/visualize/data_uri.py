"""Images within a page."""

import base64

import cv2
import numpy as np
from jaxtyping import UInt8

QUALITY = 88


def data_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """The image as JPEG in a data URI."""
    _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
