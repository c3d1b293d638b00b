"""Import timm, which imports torchvision for two helpers; no network of timm runs its compiled operators."""

from types import ModuleType

from gald._torchvision import import_with_torchvision


def import_timm() -> ModuleType:
    """Import timm, see `import_with_torchvision`."""
    return import_with_torchvision("timm")
