# The list of runs (SET METHOD ROUND SECONDS PROCESSOR-SECONDS PEAK-KB) as a table of medians, tab-separated.
# -v files=N is how many the data set `million` has, -v size_mb=N how much `big` has.
BEGIN { OFS = "\t" }

{
    row = $1 SUBSEP $2
    if (!(row in seen)) { seen[row] = ++rows; set[rows] = $1; method[rows] = $2 }
    if ($4 == "failed") { failed[row]++; next }
    n = ++runs[row]
    wall[row, n] = $4
    cpu[row, n] = $5
    if ($6 != "-" && $6 + 0 > peak[row]) peak[row] = $6 + 0
}

# The median of what array[row, 1..n] holds.
function median(array, row, n,    sorted, i, j, value) {
    for (i = 1; i <= n; i++) {
        value = array[row, i] + 0
        for (j = i - 1; j >= 1 && sorted[j] > value; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = value
    }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

function fastest(row,    i, least) {
    for (i = 1; i <= runs[row]; i++) if (least == "" || wall[row, i] + 0 < least) least = wall[row, i] + 0
    return least
}

# How a row compares with a method on the same data, `-` without both. The medians of what they have in common are
# compared: seconds or, which other work on the machine hardly changes, processor seconds.
function ratio(row, set, method, medians,    other) {
    other = set SUBSEP method
    return medians[row] > 0 && medians[other] > 0 ? sprintf("%.2f", medians[row] / medians[other]) : "-"
}

function verdict(text, met) { goals = goals (goals == "" ? "" : "; ") text (met ? ": met" : ": MISSED") }

function judge(row, set, method,    mode, thousands, million) {
    goals = ""
    mode = substr(method, length(method))
    if (method !~ /^transfer/ || !runs[row]) return "-"
    if (set == "fixed") {
        verdict(sprintf("%.2f s more than bare (0.8)", middle[row] - middle[set, "bare"]), middle[row] - middle[set, "bare"] <= 0.8)
    } else if (runs[set, "hand-" mode]) {
        verdict("1.1 x hand", middle[row] <= 1.1 * middle[set, "hand-" mode])
    }
    if (mode == "b" && runs[set, "bare"]) verdict("about 1.8 x bare", middle[row] <= 1.9 * middle[set, "bare"])
    if (mode == "d" && (set == "big" || set == "datadir") && size_mb >= 1600) verdict("12 s", middle[row] <= 12)
    thousands = "thousands" SUBSEP method
    if (set == "million" && runs[thousands])
        verdict(sprintf("%.0f us a file, of 20000 %.0f", middle[row] / files * 1e6, middle[thousands] / 20000 * 1e6),
            middle[row] / files <= middle[thousands] / 20000)
    if (peak[row]) verdict("50 MB", peak[row] < 50 * 1024)
    return goals
}

END {
    print "data", "method", "runs", "median s", "fastest s", "cpu s", "x bare", "x hand", "cpu x hand", "peak MB", "goals"
    for (i = 1; i <= rows; i++) {
        row = set[i] SUBSEP method[i]
        if (!runs[row]) continue
        middle[row] = median(wall, row, runs[row])
        used[row] = median(cpu, row, runs[row])
    }
    for (i = 1; i <= rows; i++) {
        row = set[i] SUBSEP method[i]
        if (!runs[row]) { print set[i], method[i], 0, "failed", "-", "-", "-", "-", "-", "-"; continue }
        hand = method[i] ~ /^transfer/ ? "hand" substr(method[i], 9) : "none"
        print set[i], method[i], runs[row] (failed[row] ? " of " runs[row] + failed[row] : ""), \
            sprintf("%.2f", middle[row]), sprintf("%.2f", fastest(row)), \
            (used[row] > 0 ? sprintf("%.2f", used[row]) : "-"), ratio(row, set[i], "bare", middle), \
            ratio(row, set[i], hand, middle), ratio(row, set[i], hand, used), \
            (peak[row] ? sprintf("%.1f", peak[row] / 1024) : "-"), judge(row, set[i], method[i])
    }
}
