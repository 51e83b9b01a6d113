/* Module entry: every subject registers its functions. Loads once per environment (main thread and each worker). */
#include "addon.h"

#define REGISTER(subject) subpage_register_##subject(env, exports);

NAPI_MODULE_INIT()
{
    SUBPAGE_SUBJECTS(REGISTER)
    return exports;
}
