"""`m3dhmr label`: photos and videos into a dataset of your own."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.commands.image_options import add_hand_options, parse_method_options
from m3dhmr_jax.runtime.files import user_path


def add_label_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="photos, videos, folders of them, or patterns in quotes; with --reject a labelled set",
    )
    add(
        "--out",
        type=user_path,
        required=True,
        metavar="FOLDER",
        help="a new folder for the set; an unfinished one is continued",
    )
    add(
        "--split",
        type=float,
        default=0.1,
        metavar="FRACTION",
        help="fraction of the hands for evaluation: whole videos and folders, or the end of the "
        "only one (default: 0.1)",
    )
    add(
        "--rate",
        type=float,
        default=5.0,
        metavar="HZ",
        help="frames that are labelled of each second of video (default: 5)",
    )
    add(
        "--review",
        action="store_true",
        help="also write pages of all labels, worst first, on which you untick wrong ones and save "
        "a list for --reject; if the set is finished, only these",
    )
    add(
        "--reject",
        type=user_path,
        action="append",
        metavar="FILE",
        help="a list that was saved on a page: copy the set without its hands; may be repeated",
    )
    add_hand_options(parser)


def run_label(options: argparse.Namespace) -> None:
    from m3dhmr_jax.hand import load_builtin, load_mano
    from m3dhmr_jax.labelling.labelled_set import is_finished
    from m3dhmr_jax.labelling.reject import copy_without
    from m3dhmr_jax.labelling.review import write_review
    from m3dhmr_jax.labelling.run import LabelOptions, label_files
    from m3dhmr_jax.labelling.teacher import Teacher
    from m3dhmr_jax.predict.run import IncompleteError

    images = parse_method_options(options)
    hand = load_mano(options.hand) if options.hand else load_builtin()
    skipped = []
    if options.reject:
        copy_without(options.photos, options.reject, options.out)
    elif not (options.review and is_finished(options.out)):
        label_options = LabelOptions(options.photos, images, options.rate, options.split)
        skipped = label_files(lambda: Teacher(hand), label_options, options.out)
    if options.review:
        for page in write_review(options.out, hand):
            print(f"look at {page}")
    if skipped:
        raise IncompleteError(f"skipped: {'; '.join(skipped[:10])}")


COMMAND = Command(
    "labels photos and videos of hands: a dataset of your own in FreiHAND's layout",
    (
        "m3dhmr label data/quickstart/evaluation/rgb --fov 28 --out data/labelled --review",
        "m3dhmr label my_photos/ clip.mp4 --out data/mine --review",
        "m3dhmr label data/mine --reject rejected_1.json --out data/mine_checked",
    ),
    add_label_options,
    run_label,
)
