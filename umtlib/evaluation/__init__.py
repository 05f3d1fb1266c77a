"""Is a translation any good? One module per question, all of one shape (that of mir_eval).

A module states its conventions, has metrics that are pure functions of arrays, and ``evaluate``,
which returns a dict of numbers. What each number is worth: ``docs/evaluation.md``.

==================  ==========================================================================
`pitch`             does the output follow the input's pitch? (the paper's NCC and DTW, and better)
`notes`             are the notes of the score there? melody, notes, frames
`truth`             how far is the true rendering of the same notes by the target's instruments?
`dynamics`          attacks, decay, flutter, level: does it sound in time?
`recogniser`        does it sound like the target domain? and `frechet`: like its recordings?
`latent`            is the source domain in the latent? are the notes? (the paper's outlook)
`nsynth`            do the embeddings of a pitch agree across instruments? (the paper's Figure 3)
`blending`          is a blend of two inputs seamless? and how free is a creative decoder?
`listening`         what did listeners say? and `stimuli`: what were they given?
==================  ==========================================================================

`report` asks them all of one model and, so that a number can be judged, of `standins`.
"""
