// Work shared out to several threads.

#include <algorithm>
#include <cstdint>
#include <future>
#include <vector>

namespace {

// Calls work(first, last) for parts of 0 .. count, one on each thread; passes on what went wrong.
template <class Work>
void share(int64_t count, int threads, Work work) {
  threads = int(std::max<int64_t>(1, std::min<int64_t>(threads, count)));
  std::vector<std::future<void>> others;
  for (int i = 1; i < threads; ++i)
    others.push_back(std::async(std::launch::async, work, count * i / threads, count * (i + 1) / threads));
  work(0, count / threads);
  for (auto& other : others) other.get();
}

}  // namespace
