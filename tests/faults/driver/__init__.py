"""The fault driver: a busy fleet of witnesses, seeded blows at botd and the keeper, and a reckoning.

    crew      which bots there are, and what each of them is for
    promises  what botd acknowledged, and therefore owes
    storm     the requests of one round, sent while the blow falls
    rig       the two programs: killing, stopping, arming them, and the time until they are back
    blows     the faults of random rounds
    points    every numbered crash point, found in the source, and the way to each
    evidence  what the bots wrote down against what botd recorded and the keeper filed
    chapter   a fleet from its first start to the reckoning: so many rounds, one seed
    tally     the figures, and the table of them

Everything that chance decides comes from (seed, round): the same seed injects the same faults again. Where they hit is
up to the machine, so a finding is repeated by running its chapter some more times.
"""
