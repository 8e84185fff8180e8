"""What is known of JAX's primitives: which work entry by entry, and which are linear.

Both are lists of what is known. A primitive that is on neither, of a future JAX too, has axes that are not
known, and is a non-linearity with its own name.
"""

_COMPARISONS = "eq ne lt le gt ge is_finite not and or xor"
_ROUNDED = "sign floor ceil round nextafter rem shift_left shift_right_logical shift_right_arithmetic"
_SMOOTH = """
exp exp2 expm1 log log1p tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh logistic erf
erfc erf_inv lgamma digamma bessel_i0e bessel_i1e polygamma igamma igammac zeta sqrt rsqrt cbrt
square integer_pow pow atan2 abs abs_sq max min clamp mul div select_n regularized_incomplete_beta
population_count clz bitcast_convert_type
"""
_SAME = """
neg add sub add_any convert_element_type reduce_precision copy copy_p stop_gradient name real imag conj
complex optimization_barrier sharding_constraint mesh_cast reshard device_put pvary
"""
ELEMENTWISE = frozenset(f"{_COMPARISONS} {_ROUNDED} {_SMOOTH} {_SAME}".split())

REDUCTIONS = frozenset(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin".split()  # noqa: SIM905
)
WINDOW_REDUCTIONS = frozenset(
    "reduce_window reduce_window_sum reduce_window_max reduce_window_min".split()  # noqa: SIM905
)
CUMULATIVE = frozenset("cumsum cummax cummin cumprod cumlogsumexp".split())  # noqa: SIM905

# Linear in whichever of their inputs depend on the images.
LINEAR = frozenset(_SAME.split()) | frozenset(
    """
    reduce_sum reduce_window_sum cumsum reshape squeeze expand_dims transpose broadcast_in_dim slice rev
    concatenate stack unstack split fft scan_carry scan_slice scan_stack while
    """.split()  # noqa: SIM905
)
# Linear in some of their inputs, if no other depends on the images: in what they move about, not in where to.
LINEAR_IN = {
    **dict.fromkeys(("gather", "dynamic_slice", "div"), frozenset({0})),
    **dict.fromkeys(("pad", "dynamic_update_slice"), frozenset({0, 1})),
    **dict.fromkeys(("scatter", "scatter-add", "scatter_add"), frozenset({0, 2})),
}
# Linear in what they choose from, if the choice, their first input, does not depend on the images.
CHOSEN_BY_FIRST = frozenset(["cond", "select_n"])
# Linear in one of two inputs, if the other does not depend on the images.
BILINEAR = frozenset(["mul", "dot_general", "conv_general_dilated", "triangular_solve"])
