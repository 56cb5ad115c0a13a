"""`after_import(name, change)`: change a module of an upstream as soon as it is loaded."""

import sys
from importlib.machinery import PathFinder


class Finder:
    """Finds the module as Python would, and lets `change` have it afterwards."""

    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


def after_import(name, change):
    sys.meta_path.insert(0, Finder(name, change))
