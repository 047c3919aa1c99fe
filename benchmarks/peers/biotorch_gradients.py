"""Write BioTorch's weights, feedback matrices and gradients of one training step to .npz files.

python benchmarks/peers/biotorch_gradients.py FOLDER [network_rule …]

It needs torch, torchvision and BioTorch 0.0.16, and nothing of this project. Everything is in
float64, in training mode, under the mean softmax cross-entropy of random labels. A file
`<network>_<rule>.npz` holds `images` (N, height, width, channels), `labels`, and under the names of
this project's layers `<layer>/<part>`, in Keras's layout, with part one of

    kernel bias gamma beta                   the weights before the step
    feedback                                 B, as it was used in the step; not under bp
    gradient_of_kernel gradient_of_bias …    their gradients
    moving_mean moving_variance              batch norm's after the step

and `versions`, of Python, torch, torchvision and BioTorch.
"""

import importlib
import importlib.metadata
import pathlib
import platform
import re
import sys

import numpy as np
import torch

MODES = {"bp": "backpropagation", "fa": "fa", "usf": "usf", "frsf": "frsf", "brsf": "brsf"}
NETWORKS = {
    # name: (the builder in biotorch.models.<mode>, the shape of a batch)
    "lenet": ("le_net_mnist", (8, 1, 32, 32)),
    "resnet18": ("resnet18", (4, 3, 64, 64)),
}
CLASSES = 10


def name_layer(name):
    """Return this project's name of a module of BioTorch's LeNet or of torchvision's ResNet."""
    if name == "fc1":
        return "dense1"
    if name in ("fc", "fc2"):
        return "logits"
    form = re.fullmatch(r"layer(\d)\.(\d)\.(?:(conv|bn)(\d)|downsample\.(\d))", name)
    if form:
        stage, block, kind, index, part = form.groups()
        kind = kind or ("conv", "bn")[int(part)]
        place = f"stage{stage}_block{int(block) + 1}_{index or 'shortcut'}"
    else:
        place, kind = "stem", name.rstrip("1")
    return f"{place}_{'conv' if kind == 'conv' else 'norm'}"


def in_keras_layout(tensor):
    """Return a weight as a NumPy array whose input dimension comes before the output's."""
    array = tensor.detach().numpy()
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def get_feedback(layer, rule):
    """Return the B that a layer of BioTorch's used in its last step."""
    feedback = layer.weight_backward
    # Under frsf the layer keeps the magnitudes, and takes the signs in its forward pass.
    return feedback.abs() * torch.sign(layer.weight) if rule == "frsf" else feedback


def compute(network, rule):
    """Return what the file of a network and a rule holds, a dict of arrays."""
    builder, shape = NETWORKS[network]
    torch.manual_seed(0)
    models = importlib.import_module(f"biotorch.models.{MODES[rule]}")
    model = getattr(models, builder)(num_classes=CLASSES).double().train()
    # Our networks take float32 images.
    images = torch.randn(shape, dtype=torch.float32).double()
    labels = torch.randint(CLASSES, shape[:1])
    arrays = {"images": images.permute(0, 2, 3, 1).numpy(), "labels": labels.numpy()}
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases and β start at 0, and γ at 1, where some mistakes could not be seen.
            if parameter.ndim == 1 and parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    for name, layer in model.module.named_modules():
        if not hasattr(layer, "weight"):
            continue
        norm = isinstance(layer, torch.nn.BatchNorm2d)
        place = name if network == "lenet" and name.startswith("conv") else name_layer(name)
        for part, parameter in (
            ("gamma" if norm else "kernel", layer.weight),
            ("beta" if norm else "bias", layer.bias),
        ):
            if parameter is not None:
                arrays[f"{place}/{part}"] = in_keras_layout(parameter)
                arrays[f"{place}/gradient_of_{part}"] = in_keras_layout(parameter.grad)
        if norm:
            arrays[f"{place}/moving_mean"] = layer.running_mean.numpy()
            arrays[f"{place}/moving_variance"] = layer.running_var.numpy()
        elif rule != "bp":
            arrays[f"{place}/feedback"] = in_keras_layout(get_feedback(layer, rule))
    return arrays


def main(folder, *names):
    """Write the files."""
    torch.set_default_dtype(torch.float64)
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    packages = ("torch", "torchvision", "biotorch")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    versions = [f"Python {platform.python_version()}", *versions]
    every = [f"{network}_{rule}" for network in NETWORKS for rule in MODES]
    for name in names or every:
        arrays = compute(*name.split("_"))
        np.savez(pathlib.Path(folder) / f"{name}.npz", versions=np.array(versions), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
