"""Target propagation: a network whose layers each learn to meet a target, with no error between.

With the layers ``h_l = f_l(h_{l−1})`` and inverses ``g_l``, which give ``h_{l−1}`` back::

    ĥ_L, ĥ_{L−1}      from the label or the loss, see the rules
    ĥ_l = g_{l+1}(ĥ_{l+1})                            target propagation
    ĥ_l = h_l − g_{l+1}(h_{l+1}) + g_{l+1}(ĥ_{l+1})   difference target propagation
    ‖h_l − ĥ_l‖²                                      what W_l and b_l minimize, the rest constant
    g_l(h) = φ_{l−1}(V_l h + c_l)                     V_l of W_l's shape, used transposed
    ‖g_l(f_l(h_{l−1} + ξ)) − h_{l−1}‖²,  ξ ~ N(0, σ²) what V_l and c_l minimize, f_l constant

Squared errors are summed over the entries and averaged over the batch. The output layer learns by
the loss itself. The rules are in `tfbio.rules`: tp, dtp, sdtp, ao_sdtp and l_drl.

References:
    Lee et al. 2015, "Difference target propagation"; Bartunov et al. 2018, "Assessing the
    scalability of biologically-motivated deep learning algorithms and architectures"; Ernoult et
    al. 2022, "Towards scaling difference target propagation by learning backprop targets".
"""

from tfbio.networks.target_propagation.inverse import inverse, undone
from tfbio.networks.target_propagation.network import TargetNetwork
from tfbio.networks.target_propagation.stages import Pass, Stage, stages

__all__ = ["Pass", "Stage", "TargetNetwork", "inverse", "stages", "undone"]


def __dir__():
    return __all__
