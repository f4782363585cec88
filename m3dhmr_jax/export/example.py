"""The mesh of a hand in a photo, in metres, with onnxruntime, NumPy and OpenCV alone.

python example.py hand.onnx photo.jpg X,Y,WIDTH,HEIGHT right|left hand.obj

The box is in pixels. `place.py`, which must lie beside this file, explains frames and units.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime
import place


def main(network: str, photo: str, box: str, side: str, out: str) -> None:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    image = cv2.imread(photo)
    if image is None:
        sys.exit(f"{photo} cannot be read as an image")
    image = image[..., ::-1]
    height, width, _ = image.shape
    # Without EXIF data this is a guess, and depth with it: use your camera's own K if you know it.
    k = place.intrinsics(width, height, place.read_focal_35mm(photo))
    size = session.get_inputs()[0].shape[1]
    square = place.square_of_box(np.array([float(number) for number in box.split(",")]))
    for _ in range(2):  # The second look is at the hand turned upright.
        crop_from_img = place.crop_matrix(square, size, side)
        crop = cv2.warpAffine(*place.region(image, crop_from_img, size), (size, size))
        names = ["vertices_m", "joints_m", "landmarks_px"]
        outputs = session.run(names, {"crops": crop[None]})
        vertices_m, joints_m, landmarks_px = (np.asarray(each)[0] for each in outputs)
        hand = place.place(vertices_m, joints_m, landmarks_px, crop_from_img, k)
        square = square._replace(direction_rad=place.hand_direction(hand.landmarks_px))
    faces = np.array(json.loads(session.get_modelmeta().custom_metadata_map["faces"]))
    with open(out, "w") as file:
        np.savetxt(file, hand.vertices_m, "v %.6f %.6f %.6f")
        np.savetxt(file, (faces if side == "right" else faces[:, ::-1]) + 1, "f %d %d %d")
    print("wrist: {:.3f} {:.3f} {:.3f} m".format(*hand.joints_m[0]))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
