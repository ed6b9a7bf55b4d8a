"""Methods: name → module. A module satisfies `engine.contracts.Method`."""

METHODS = {
    "random": "engine.methods.random",
    "popular": "engine.methods.popular",
    "greedy": "engine.methods.greedy",
    "fixed_weights": "engine.methods.fixed_weights",
    "balanced": "engine.methods.balanced",
    "oracle": "engine.methods.oracle",
    "a2c": "engine.methods.a2c",
    "td3": "engine.methods.td3",
    "bcq": "engine.methods.bcq",
    "mofir": "engine.methods.mofir",
    "dorl": "engine.methods.dorl",
    "dnair": "engine.methods.dnair",
    "sac4ir": "engine.methods.sac4ir",
    "dsrm_hrl": "engine.methods.dsrm_hrl",
}
