"""Runs of n words that a document repeats, in the arithmetic of datatrove's GopherRepetitionFilter.

Nothing is decided by a hash: words are compared byte for byte and numbered by where they stand first, and an n-gram of
up to four words is the exact pair of two such numbers. An n-gram can repeat only where both (n-1)-grams in it do.

The n-grams of five words and more are another thing: datatrove joins their words with nothing between, so "a bc" and
"ab c" are the same, and what is compared are the packed bytes. There no shorter n-gram says anything, but equal
n-grams begin with the same bytes: only places whose first bytes occur at another place, too, are looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels._jit import Ints, kernel
from pipeline.kernels.scratch import ABSENT, Scratch, mask_for, next_stamp, put, slot_of, value_at
from pipeline.kernels.wide import S29, SECOND, SEED, first8, hashed_padded, load8, same_padded, step

S32 = np.uint64(32)


@kernel
def number_words(n: int, room: Scratch) -> None:
    """word[w] = the first place at which word w of n stands, tally[that place] = how often it does."""
    packed, ends, word, tally, table = room.packed, room.ends, room.word, room.tally, room.table
    stamp, mask = next_stamp(table, room.stamp), mask_for(n)
    for w in range(n):
        a, b = np.int64(ends[w]), np.int64(ends[w + 1])
        # Of up to eight bytes no two words of a size have one key.
        short = b - a <= 8
        key = step(SEED ^ np.uint64(b - a), load8(packed, a) & first8(b - a)) if short else hashed_padded(packed, a, b)
        slot = slot_of(key, mask)
        while True:
            first = value_at(table, slot, stamp)
            if first == ABSENT:
                put(table, slot, stamp, key, w)
                word[w] = w
                tally[w] = 1
                break
            c = np.int64(ends[first])
            alike = table[slot, 0] == key and ends[first + 1] - c == b - a
            if alike and (short or same_padded(packed, a, c, b - a)):
                word[w] = first
                tally[first] += 1
                break
            slot = (slot + 1) & mask


@kernel
def top_ngrams(n: int, spaces: int, longest: bool, room: Scratch, out: Ints) -> np.int64:
    """out[n - 2] = characters of the commonest n-gram, words `spaces` apart, times how often it stands; n is 2, 3, 4.

    Of several that are as common the one that stands first counts, as in collections.Counter.most_common; `longest`
    takes the one of most characters, and none where none repeats. `word` and `tally` are as `number_words` left them.
    Returns how many places the 4-grams have that repeat, as `lengthened` does.
    """
    sizes, word, gram, tally, chosen = room.sizes, room.word, room.gram, room.tally, room.chosen
    places = np.int64(0)
    for w in range(n):
        gram[w] = word[w]
        chosen[places] = w
        places += tally[word[w]] > 1
    for size in range(2, 5):
        if n < size:
            places = np.int64(0)
            out[size - 2] = 0
            continue
        places = lengthened(places, size, room)
        best, at = np.int64(1), np.int64(0)
        for k in range(places):
            first = np.int64(gram[chosen[k]])
            if tally[first] < best:
                continue
            better = sizes[first + size] - sizes[first] > sizes[at + size] - sizes[at] if longest else first < at
            if tally[first] > best or better:
                best, at = np.int64(tally[first]), first
        characters = np.int64(sizes[at + size]) - np.int64(sizes[at]) + spaces * (size - 1)
        out[size - 2] = 0 if longest and best == 1 else characters * best
    return places


@kernel
def copied_ngrams(n: int, places: int, room: Scratch, out: Ints) -> None:
    """What n-grams of 5 to 10 words take that stand at several places, each of `places` (of 4-grams) among them.

    out[n - 5] = characters of all their places, out[n + 1] = characters of all n-grams at all places, out[n + 7] =
    characters of the words that they cover, each word once.
    """
    sizes, chosen = room.sizes, room.chosen
    for size in range(5, 11):
        weight = every = covered = past = np.int64(0)
        if n >= size:
            places = lengthened(places, size, room)
            for k in range(places):
                w = np.int64(chosen[k])
                end = np.int64(sizes[w + size])
                weight += end - np.int64(sizes[w])
                covered += end - np.int64(sizes[max(w, past)])
                past = w + size
            # Each n-gram is the words before its end without those before its start; most cancel.
            for k in range(size):
                every += np.int64(sizes[n - k]) - np.int64(sizes[k])
        out[size - 5], out[size + 1], out[size + 7] = weight, every, covered


@kernel
def lengthened(places: int, size: int, room: Scratch) -> np.int64:
    """From the repeated (size - 1)-grams to the size-grams that repeat, in `chosen`; returns how many places they have.

    chosen[:places] are places whose (size - 1)-gram repeats, ascending, and gram[w] its first place. After it the same
    holds of size-grams, and tally[first place] is how often each stands.
    """
    word, gram, tally, chosen, table = room.word, room.gram, room.tally, room.chosen, room.table
    places = _likely(places, size, room)
    stamp, mask = next_stamp(table, room.stamp), mask_for(places)
    for k in range(places):
        w = np.int64(chosen[k])
        key = _pair(gram[w], word[w + size - 1])
        slot = slot_of(key, mask)
        while True:
            first = value_at(table, slot, stamp)
            if first == ABSENT:
                put(table, slot, stamp, key, w)
                first = w
                tally[w] = 1
                break
            if table[slot, 0] == key:
                tally[first] += 1
                break
            slot = (slot + 1) & mask
        gram[w] = first
    kept = np.int64(0)
    for k in range(places):
        w = chosen[k]
        chosen[kept] = w
        kept += tally[gram[w]] > 1
    return kept


@kernel
def _likely(places: int, size: int, room: Scratch) -> np.int64:
    """Leave in `chosen` the places whose size-gram may repeat; returns how many they are.

    The next place's (size - 1)-gram must repeat as well, and another pair have the same hash. This is without branches
    that nobody could foresee, and most pairs that stand once never come to the table.
    """
    word, gram, chosen, sieve = room.word, room.gram, room.chosen, room.sieve
    mask = mask_for(2 * places)
    sieve[: mask + 1] = 0
    found = np.int64(0)
    for k in range(places - 1):
        w = np.int64(chosen[k])
        chosen[found] = w
        if chosen[k + 1] == w + 1:
            place = slot_of(_pair(gram[w], word[w + size - 1]), mask)
            sieve[place] = min(sieve[place] + 1, 2)
            found += 1
    kept = np.int64(0)
    for k in range(found):
        w = np.int64(chosen[k])
        chosen[kept] = w
        kept += sieve[slot_of(_pair(gram[w], word[w + size - 1]), mask)] > 1
    return kept


@kernel
def _pair(first: int, second: int) -> np.uint64:
    """Two numbers of 32 bits as one, mixed; no other two give it."""
    key = np.uint64(first) << S32 | np.uint64(second)
    return key ^ (key >> S29)


@kernel
def joined_duplicates(n: int, room: Scratch, out: Ints) -> None:
    """out[n - 5] = characters in n-grams that stood before, n from 5 to 10, read from left to right without overlap."""
    packed, ends, chosen, begins = room.packed, room.ends, room.chosen, room.begins
    for size in range(5, 11):
        out[size - 5] = 0
    if n < 6:
        return
    # So long a beginning that few n-grams are shorter: their words are of three bytes in Chinese, of five in English.
    total: Any = min(np.int64(ends[n]), 8 * n)
    prefix = first = min(max(4 * total // n, 8), 16)
    places: Any = n - 4
    for w in range(n - 4):
        a = np.int64(ends[w])
        chosen[w] = w
        begins[w] = step(step(SEED, load8(packed, a)), load8(packed, a + prefix - 8))
    for size in range(5, 11):
        places = _repeated_beginnings(n, size, prefix, places, room)
        out[size - 5] = _again(n, size, prefix, places, room)
        prefix = first + (size - 4) * total // n
        for k in range(places):
            at = np.int64(chosen[k])
            begins[at] = step(begins[at], load8(packed, np.int64(ends[at]) + prefix - 8))


@kernel
def _again(n: int, size: int, prefix: int, places: int, room: Scratch) -> np.int64:
    """Characters of the n-grams of `size` words at chosen[:places] that stood before, without overlap."""
    packed, ends, sizes = room.packed, room.ends, room.sizes
    chosen, begins, table = room.chosen, room.begins, room.table
    stamp, mask = next_stamp(table, room.stamp), mask_for(places)
    past = characters = np.int64(0)
    for k in range(places):
        w = np.int64(chosen[k])
        if w < past:
            continue
        if w + size > n:
            break
        a, b = np.int64(ends[w]), np.int64(ends[w + size])
        # The hash of the beginning and the last bytes have met every byte.
        if prefix <= b - a <= prefix + 8:
            key = step(begins[w] ^ np.uint64(b - a), load8(packed, b - 8)) * SECOND
        elif prefix < b - a <= prefix + 16:
            key = step(step(begins[w] ^ np.uint64(b - a), load8(packed, b - 16)), load8(packed, b - 8)) * SECOND
        else:
            key = hashed_padded(packed, a, b)
        slot = slot_of(key, mask)
        while True:
            first = value_at(table, slot, stamp)
            if first == ABSENT:
                put(table, slot, stamp, key, w)
                break
            c = np.int64(ends[first])
            if table[slot, 0] == key and ends[first + size] - c == b - a and same_padded(packed, a, c, b - a):
                characters += np.int64(sizes[w + size]) - np.int64(sizes[w])
                past = w + size
                break
            slot = (slot + 1) & mask
    return characters


@kernel
def _repeated_beginnings(n: int, size: int, prefix: int, places: int, room: Scratch) -> np.int64:
    """Leave in `chosen` every place whose n-gram may begin as another one does; returns how many of `places` those are.

    begins[w] is the hash of `prefix` bytes from word w on. An n-gram that is shorter is always among them. What begins
    as no other of five words does, begins as no other of six: so no place comes back.
    """
    ends, chosen, begins, sieve = room.ends, room.chosen, room.begins, room.sieve
    mask = mask_for(2 * places)
    sieve[: mask + 1] = 0
    for k in range(places):
        place = np.int64(begins[chosen[k]] >> S32) & mask
        sieve[place] = min(sieve[place] + 1, 2)
    found = np.int64(0)
    for k in range(places):
        w = np.int64(chosen[k])
        past = w + size if w + size < n else n
        short = ends[past] - ends[w] < prefix
        chosen[found] = w
        found += short | (sieve[np.int64(begins[w] >> S32) & mask] > 1)
    return found
