static bool contains(cpa_text text, const char *words) {
    size_t len = strlen(words);
    for (size_t i = 0; len <= text.len && i <= text.len - len; i++)
        if (memcmp(text.at + i, words, len) == 0)
            return true;
    return false;
}
