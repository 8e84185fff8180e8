"""Functions of (variables, images, targets, keys) as methods of the one signature."""


def method(function):
    def called(apply, variables, images, targets=None, *, score=None, key=None):
        return function(variables, images, targets, key)

    return called


def methods(functions):
    return {name: method(function) for name, function in functions.items()}
